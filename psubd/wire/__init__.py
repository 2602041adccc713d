"""HTTP/1.1 bytes to exchanges and back.

`site.Site` listens; a `channel.Channel` a connection finds heads (`head`, `memo`), takes bodies (`framing`, `intake`, `coding`) and writes answers
(`replies`, `handover`, `outlet`); `request.Request` is what Klein's tree (`tree`) works on, `hot.HotRequest` what is served past it. `problem` is
the only writer of a status >= 400.
"""
