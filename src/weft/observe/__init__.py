"""What can be seen of the agent from outside: metrics and health over HTTP.

    catalogue    every metric: name, kind, labels, help; the reference page comes from it
    counts       what is counted while the agent works, at a fraction of a microsecond
    exposition   samples -> the text that Prometheus reads
    http         the small server; it answers while the agent's loop is stuck

Knows nothing of the agent: `agent.measures` gives the samples, `agent.health` the verdicts.
"""
