"""A node as a service: its control socket, worker processes, and the supervisor that keeps them running."""
