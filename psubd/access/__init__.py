"""The application border: who a request is, and what it may do."""
