"""agentstate: durable runs for agents. Importing it is light; the SDK loads at first use."""
