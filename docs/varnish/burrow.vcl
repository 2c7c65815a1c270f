# Varnish as a shared tier of Burrow's nodes: docs/origins.md. Two lines are yours: the host and the port of the origin.
vcl 4.1;

backend origin {
  .host = "packages.example";
  .port = "80";
}

sub vcl_recv {
  # Nodes ask for ranges; Varnish fetches an object whole, once, and answers them from it while it comes.
  unset req.http.Cookie;
  return (hash);
}

sub vcl_backend_response {
  # What has a name by its content never changes. Anything else, such as "not there", is asked again each time.
  if (beresp.status == 200) {
    set beresp.ttl = 30d;
    set beresp.grace = 0s;
  } else {
    set beresp.ttl = 0s;
    set beresp.uncacheable = true;
  }
  unset beresp.http.Set-Cookie;
  return (deliver);
}
