// Command firmware-sim plays devices that are not there. firmware-sim replay plays a recording of real sensors into a hub, over
// the protocol that real devices speak.
package main
