"""Node to node: one authenticated connection per pair of nodes, with frames both ways. `Mesh` provides `psubd.interfaces.IPeers`.

    from above         `mesh.Mesh`              to whom links are kept (`IMembership`), calls by member
    one connection     `connection.Connection`  bytes, time, back-pressure; its course is `course` (Automat)
                       `dialler.Dialler`        getting to a member again and again
    no I/O             `link.Link`              calls out, calls in, cancels
                       `outbox`, `pieces`       what waits to go, in fair turns; large messages put together
                       `auth`                   who is there
                       `frames`, `faults`       bytes <-> frames, failures
    beneath            `line.Line`              loopback or TLS; what the configuration may say
                       `secret.PeerSecret`      the registry's secret

docs/peers.md has the wire format and the drawing of the states.
"""
