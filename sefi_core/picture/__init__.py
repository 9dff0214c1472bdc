"""What is done to a picture before it is learned."""
