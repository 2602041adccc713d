"""The storage room: logs of topics and the groups' places in them, behind `psubd.interfaces.IStorage`.

``memory`` and ``sqlite`` do not know each other; what they share is how topics are judged (`topics`) and who waits (`watches`).
"""
