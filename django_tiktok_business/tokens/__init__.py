"""The token engine: connect, refresh, store, disconnect. Every change of a token happens here."""
