"""The static report: pages of a day and of a week that need no server, no script and no network.

`sections/` asks (named queries, Redis, the bucket, Prometheus) and makes plain data of `model`; `templates/` shows it;
`publish` puts it where it is read. Whatever could not be read is a gap that is shown, and keeps the page from green.
"""
