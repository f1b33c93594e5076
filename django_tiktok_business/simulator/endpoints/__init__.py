"""The endpoints under `/open_api/v1.3`, one module for each group."""
