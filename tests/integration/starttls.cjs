// Does what a mail client of Node's does: STARTTLS by hand, then TLS, then QUIT; prints whom it met, as JSON.
//
// node starttls.cjs PORT SERVERNAME CA-FILE [CIPHERS]
"use strict";
const fs = require("fs");
const net = require("net");
const tls = require("tls");

const [port, servername, ca, ciphers] = process.argv.slice(2);

function fail(error) {
  console.log(JSON.stringify({ error: error.code || error.message }));
  process.exit(1);
}

function reply(socket, text, then) {
  let said = "";
  const hear = (data) => {
    said += data;
    if (/^\d{3} .*\r\n/m.test(said)) {
      socket.removeListener("data", hear);
      then(said);
    }
  };
  socket.on("data", hear);
  if (text) socket.write(text);
}

const socket = net.connect(Number(port), "127.0.0.1");
socket.on("error", fail);
reply(socket, "", () =>
  reply(socket, "EHLO client.example\r\n", () =>
    reply(socket, "STARTTLS\r\n", () => {
      socket.removeListener("error", fail);
      const limits = ciphers ? { ciphers, maxVersion: "TLSv1.2" } : {};
      const secure = tls.connect({ socket, servername, ca: fs.readFileSync(ca), ...limits });
      secure.on("error", fail);
      secure.on("secureConnect", () => {
        const { subject, issuer, serialNumber } = secure.getPeerCertificate();
        reply(secure, "EHLO client.example\r\n", (hello) =>
          reply(secure, "QUIT\r\n", () => {
            console.log(JSON.stringify({ subject: subject.CN, issuer: issuer.CN, serialNumber, hello }));
            process.exit(0);
          })
        );
      });
    })
  )
);
setTimeout(() => fail(new Error("too late")), 20000).unref();
