// Commands that send a first reading, with the real address and token in them. The browser tests run them.

import type { Snippet } from '../snippet';

export interface Place {
  /** Where the page is, with a slash at the end. */
  base: string;
  id: string;
  token: string;
  /** The fingerprint of a certificate that the hub has made itself, empty otherwise. */
  pin: string;
}

/** An id for a name: it keeps what an id may have. */
export function slug(name: string): string {
  return name
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/ß/g, 'ss')
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+|-+$/g, '')
    .slice(0, 64);
}

export const idPattern = '[a-z0-9][a-z0-9._\\-]{0,63}';

export function snippets({ base, id, token, pin }: Place): Snippet[] {
  const socket = `${base.replace(/^http/, 'ws')}device/v1`;
  const own = pin !== '';
  const ca = own ? ' The hub has made its certificate itself: copy tls/authority.pem from its data folder first.' : '';
  return [
    {
      key: 'curl',
      label: 'curl',
      before: 'One reading.',
      code: `curl -H 'Authorization: Bearer ${token}' \\
${own ? `  --insecure --pinnedpubkey '${pin}' \\\n` : ''}  -d '{"temperature":21.4}' \\
  ${base}api/v1/devices/${id}/readings`,
    },
    {
      key: 'node',
      label: 'Node',
      before: `A reading a second, after npm install ws.${ca}`,
      code: `${own ? 'NODE_EXTRA_CA_CERTS=authority.pem ' : ''}node -e '
const s = new (require("ws"))("${socket}",
  {headers: {Authorization: "Bearer ${token}"}});
s.on("open", () => setInterval(() =>
  s.send(JSON.stringify({temperature: 20 + Math.random()})), 1000));'`,
    },
    {
      key: 'python',
      label: 'Python',
      before: `A reading a second, after pip install websockets.${ca}`,
      code: `${own ? 'SSL_CERT_FILE=authority.pem ' : ''}python3 -c '
import asyncio, json, random, websockets
async def main():
    async with websockets.connect("${socket}",
            additional_headers={"Authorization": "Bearer ${token}"}) as s:
        while True:
            await s.send(json.dumps({"temperature": 20 + random.random()}))
            await asyncio.sleep(1)
asyncio.run(main())'`,
    },
    {
      key: 'pi',
      label: 'Raspberry Pi',
      before:
        'A BME280 on I2C, read by the device program; nothing is lost while the hub is away. device scan says what is on the bus.',
      code: `umask 077
mkdir -p ${id} && cd ${id}
echo ${token} > token
cat > device.yaml <<END
hub: ${base.replace(/\/$/, '')}
${own ? `pin: ${pin}\n` : ''}device: ${id}
data: .
token-file: token
sensors:
  - {chip: bme280, bus: I2C1, address: 0x76, every: 10s}
END
device run --config device.yaml`,
    },
  ];
}
