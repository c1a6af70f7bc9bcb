"""Certificates made by the openssl program, for tests of TLS."""
import os
import ssl
import subprocess


def openssl(folder, *arguments, input=None):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, input=input)


class Authority:
    """A CA of its own in `folder`."""

    def __init__(self, folder):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.file = os.path.join(self.folder, "ca.pem")
        openssl(self.folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Test authority",
                "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name, days=10):
        """Writes NAME.pem and NAME.key for 127.0.0.1 and localhost; the paths."""
        openssl(self.folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        with open(os.path.join(self.folder, "leaf.ext"), "w") as stream:
            stream.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(self.folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", str(days), "-extfile", "leaf.ext", "-out", f"{name}.pem")
        key = os.path.join(self.folder, f"{name}.key")
        os.chmod(key, 0o600)
        return os.path.join(self.folder, f"{name}.pem"), key

    @property
    def trust(self):
        return ssl.create_default_context(cafile=self.file)
