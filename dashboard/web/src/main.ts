import './app.css';
import { mount } from 'svelte';
import { Api } from './api/api';
import { Hub } from './state/hub.svelte';
import App from './views/App.svelte';

const target = document.getElementById('app');
if (target === null) throw new Error('the page has no place for the application');

const script = import.meta.url.split('/').pop() ?? '';
const hub = new Hub(new Api(document.baseURI.replace(/[?#].*$/, '')), import.meta.env.PROD ? script : '');
mount(App, { target, props: { hub } });
