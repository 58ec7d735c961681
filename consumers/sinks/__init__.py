"""Alerts sent on: to webhooks, Slack, PagerDuty, by email, to a command; at least once."""
