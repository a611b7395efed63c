"""Stand-ins of services on the internet: each checks requests as the service's documentation says.

They are found under the services' own names, by a proxy that has certificates for these.
"""
