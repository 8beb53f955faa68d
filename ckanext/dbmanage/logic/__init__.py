"""The action API of the sysadmin page."""
