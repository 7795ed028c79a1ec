"""A pod of the closed namespaces: `listener.py FOLDER PORT...` takes connections, and shows the folder's files."""

import functools
import http.server
import sys
import threading

folder, *ports = sys.argv[1:]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
servers = [http.server.ThreadingHTTPServer(("", int(port)), handler) for port in ports]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, name=f"port {server.server_port}").start()
servers[0].serve_forever()
