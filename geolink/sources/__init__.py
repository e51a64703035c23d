"""Where data comes from: imagery, OpenStreetMap, places and labels."""
