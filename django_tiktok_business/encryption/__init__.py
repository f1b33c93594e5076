"""Tokens at rest: encrypted columns, the cipher, its keys and their rotation."""
