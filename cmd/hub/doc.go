// Command hub takes readings from devices, keeps them, and gives them back.
//
// hub serve is the hub itself; hub check looks at a data folder while no hub runs on it. The other commands are clients of
// a running hub: they speak its HTTP API over the control socket in the data folder, so whoever may open that folder
// administers.
package main
