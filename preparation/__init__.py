"""From raw footage to a data folder."""
