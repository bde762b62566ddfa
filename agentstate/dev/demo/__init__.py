"""Two agents to try the service with, at work on the sandbox: `refund-desk` and `research-notes`."""
