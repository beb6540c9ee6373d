"""From prompts to videos and the gallery."""
