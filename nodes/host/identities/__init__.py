"""Identity files that nodes write."""
