// Debian's nginx with a configuration of its own, in the foreground and below a temporary folder.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './rig';

const program = '/usr/sbin/nginx';

/** Why nginx can not be tried, or nothing. */
export function missingNginx(): string | undefined {
  return existsSync(program) ? undefined : `${program} is missing: apt-get install nginx`;
}

export class Nginx {
  private constructor(
    private readonly child: ChildProcess,
    private readonly dir: string,
    readonly url: string,
  ) {}

  /** Starts it with what belongs into the block http, made for the port that it shall listen at. */
  static async start(port: number, http: string): Promise<Nginx> {
    const dir = mkdtempSync(join(tmpdir(), 'hub-nginx-'));
    const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    const temporary = folders.map((name) => `${name}_temp_path ${dir}/${name};`).join('\n');
    const file = join(dir, 'nginx.conf');
    writeFileSync(
      file,
      `daemon off;\nworker_processes 1;\npid ${dir}/pid;\nerror_log stderr warn;\nevents {}\n` +
        `http {\naccess_log off;\n${temporary}\n${http}\n}\n`,
    );
    const child = spawn(program, ['-c', file, '-p', dir], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr?.on('data', (chunk) => {
      said += String(chunk);
    });
    const url = `http://127.0.0.1:${port}/`;
    await until('nginx is ready', async () => {
      if (child.exitCode !== null) throw new Error(`nginx ended: ${said}`);
      try {
        return (await fetch(`${url}readyz`)).ok;
      } catch {
        return false;
      }
    });
    return new Nginx(child, dir, url);
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill();
    await ended;
    rmSync(this.dir, { recursive: true });
  }
}
