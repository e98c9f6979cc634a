"""What training promises serving: facts, features, bundles and packets. Pure."""
