"""What the dashboard and the written report show: tables of packets in, figures and words out, nothing read."""
