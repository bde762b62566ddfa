"""The eight lines that `up` prints: an agent of one's own, in a process of one's own."""

PASTE = """\
import agentstate as st

@st.tool(effect="destructive", approve="always", title="Greet {name}?")
def greet(name: str) -> str:
    return f"Hello {name}, once and never twice."

@st.agent("hello")
def main(name: str) -> str:
    return greet(name)

st.run(main, {"name": "Ada"}), st.worker(main)
"""
