"""What OSM objects look like from above, and how to draw them: parts of the simulated imagery."""
