"""What Tenantry is compared with, each as its own users would write it, at its best settings."""
