"""What an evaluation found, as a record, a page and pictures. No model, no torch."""
