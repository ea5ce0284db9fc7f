"""What people are handed: pictures and reports of their photographs."""
