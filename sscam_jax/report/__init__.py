"""`sscam.explain` and `sscam explain`: from photographs to maps, pictures and files."""
