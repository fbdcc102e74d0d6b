"""The laptop run: embedded broker and Redis, the roles as processes, and the screen in front of them."""
