// Certificates of an authority of the test's own, good and bad, and servers that show them. Test support.

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import net, { type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import tls from "node:tls";
import type { Test } from "tap";

/** Why tests of certificates can't run here, or false. */
export const noOpenssl: string | false =
  spawnSync("openssl", ["version"]).status === 0 ? false : "no openssl: apt-get install openssl";

export interface Shown {
  readonly key: string;
  readonly cert: string;
}

/** An authority in a folder of its own, removed when the test ends. */
export class Authority {
  /** Its certificate, as NODE_EXTRA_CA_CERTS wants it. */
  readonly path: string;
  readonly #folder = fs.mkdtempSync(`${tmpdir()}/burrow-authority-`);
  #count = 0;

  constructor(t: Test) {
    const folder = this.#folder;
    t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
    this.path = `${folder}/authority.pem`;
    fs.writeFileSync(`${folder}/index.txt`, "");
    fs.writeFileSync(
      `${folder}/conf`,
      `[ca]\ndefault_ca=own\n[own]\ndatabase=${folder}/index.txt\nnew_certs_dir=${folder}\ndefault_md=sha256
policy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=supplied\n`,
    );
    this.#openssl("req", "-x509", ...NEW_KEY, "-keyout", "authority.key", "-out", this.path);
  }

  /** A certificate for a name ("DNS:…" or "IP:…") from one day to another, each as YYYYMMDDHHMMSSZ; of the authority, or signed by itself. */
  make(name: string, from: string, to: string, isOwn = true): Shown {
    const at = `${this.#folder}/${++this.#count}`;
    const extensions = `${at}.ext`;
    fs.writeFileSync(extensions, `subjectAltName=${name}\n`);
    this.#openssl("req", ...NEW_KEY, "-keyout", `${at}.key`, "-out", `${at}.csr`);
    const signer = isOwn
      ? ["-cert", this.path, "-keyfile", "authority.key"]
      : ["-selfsign", "-keyfile", `${at}.key`];
    const days = ["-startdate", from, "-enddate", to, "-extfile", extensions];
    this.#openssl(
      "ca",
      "-batch",
      "-config",
      "conf",
      ...signer,
      ...days,
      "-in",
      `${at}.csr`,
      "-out",
      `${at}.pem`,
    );
    return {
      key: fs.readFileSync(`${at}.key`, "utf8"),
      cert: fs.readFileSync(`${at}.pem`, "utf8"),
    };
  }

  #openssl(...words: string[]): void {
    execFileSync("openssl", words, { cwd: this.#folder, stdio: ["ignore", "ignore", "pipe"] });
  }
}

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
const NEW_KEY = [...KEY, "-subj", "/CN=burrow test"];

/** Speaks TLS before a web server of this machine. */
export class TlsFront {
  readonly url: string;
  readonly #server: tls.Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: tls.Server) {
    this.#server = server;
    this.url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("tlsClientError", () => undefined);
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  static async start(t: Test, url: string, shown: Shown): Promise<TlsFront> {
    const { port } = new URL(url);
    const server = tls.createServer({ ...shown }, (client) => {
      const behind = net.connect(Number(port), "127.0.0.1");
      for (const socket of [client, behind]) socket.on("error", () => undefined);
      client.once("close", () => behind.destroy());
      behind.once("close", () => client.destroy());
      client.pipe(behind).pipe(client);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const front = new TlsFront(server);
    t.teardown(async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      front.hangUp();
      await closed;
    });
    return front;
  }

  /** Shows another certificate from now on, to who connects anew. */
  show(shown: Shown): void {
    this.#server.setSecureContext({ ...shown });
    this.hangUp();
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
