"""`manage.py bench`: how fast a durable step, a start, a decision and a takeover are, as ratios where a machine varies.

The command starts durable throw-away servers and a measuring process (`python -m agentstate.dev.bench`), which starts
whatever an item needs: racers that take steps in turn, a web server, Celery workers to be killed.
"""
