// How to run a hub behind a proxy. A test runs nginx by the snippet for it.

import type { Snippet } from '../snippet';

/** The start of a hub that a proxy on the same machine stands before. */
export function startCommand(host: string): string {
  return `hub serve --data DIR --http 127.0.0.1:8080 \\
  --public-url https://${host} --trusted-proxy 127.0.0.1`;
}

export function proxies(host: string): Snippet[] {
  return [
    {
      key: 'nginx',
      label: 'nginx',
      before: 'Save it in /etc/nginx/conf.d/, with the paths of your certificate.',
      code: `map $http_upgrade $connection_upgrade {
    default upgrade;
    ''      close;
}

server {
    listen 443 ssl;
    server_name ${host};
    ssl_certificate     /etc/ssl/hub.pem;
    ssl_certificate_key /etc/ssl/hub.key;

    location / {
        proxy_pass http://127.0.0.1:8080;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        # WebSocket
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        # server-sent events
        proxy_buffering off;
        # long polling, and sockets that are quiet
        proxy_read_timeout 75s;
        proxy_send_timeout 75s;
    }
}
`,
    },
    {
      key: 'caddy',
      label: 'Caddy',
      before: 'In the Caddyfile. Caddy sees to the certificate, to upgrades and to X-Forwarded-For by itself.',
      code: `${host} {
	reverse_proxy 127.0.0.1:8080 {
		# server-sent events
		flush_interval -1
	}
}
`,
    },
    {
      key: 'apache',
      label: 'Apache',
      before: 'For Apache 2.4.47 or newer, after a2enmod ssl proxy proxy_http. It adds X-Forwarded-For by itself.',
      code: `<VirtualHost *:443>
    ServerName ${host}
    SSLEngine on
    SSLCertificateFile    /etc/ssl/hub.pem
    SSLCertificateKeyFile /etc/ssl/hub.key

    ProxyPreserveHost On
    ProxyPass / http://127.0.0.1:8080/ upgrade=websocket timeout=75
    ProxyPassReverse / http://127.0.0.1:8080/
</VirtualHost>
`,
    },
  ];
}

/** The name for the snippets: that of the page, unless it is one that no proxy has. */
export function hostFor(hostname: string): string {
  return /^[\d.]+$|^\[|^localhost$|\.local$/.test(hostname) ? 'hub.example.org' : hostname;
}
