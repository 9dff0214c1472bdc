"""What the page shows and hears."""
