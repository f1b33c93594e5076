"""What differs between databases, and writes that last."""
