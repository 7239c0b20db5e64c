"""DM-WAN: dynamic multi-level weighted alignment network, arXiv 2511.00925."""
