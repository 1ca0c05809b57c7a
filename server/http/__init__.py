"""What every route shares: error bodies, keys, the request log, body limits and disconnects."""
