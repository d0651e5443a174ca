"""A running node: its roles as processes, what they do, how they are, and what is missing."""
