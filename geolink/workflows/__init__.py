"""One function per command: paths and settings in, files and a small record out."""
