"""Any browser as a device: a small server here, and a page there that takes the job and posts its result."""
