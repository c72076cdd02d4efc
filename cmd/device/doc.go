// Command device reads the sensors of a machine and brings what they say to a hub, through a spool on disk.
package main
