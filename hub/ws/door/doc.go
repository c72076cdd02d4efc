// Package door is where connections from the network come in, before anybody knows who they are.
//
// A connection is a stranger until the credential of one of its requests was found good ([Admit]) or until it is closed.
// Strangers are what an attacker can have any number of, so a [Listener] bounds them:
//
//   - At most Options.MaxStrangers are open at a time. One more closes the oldest stranger of the address that has most of
//     them, so that whoever comes from elsewhere still gets in.
//   - A stranger has Options.Timeout for the TLS handshake and the head of its request together, and the same again for
//     the request to be answered, where only writing counts as progress. After the answer it begins anew.
//   - The head of a request is kept here until it is complete, and only then handed to net/http, whose maps of header
//     fields are many times as large as what came over the wire. A head has at most 6 KiB and 64 lines.
//   - A stranger costs at most 32 KiB of memory, or 64 KiB with TLS, of which one record of the protocol is 16 KiB. As there
//     are 1,024 of them, or 512 with TLS, all together cost at most 32 MiB.
//
// Ordinary clients notice none of it, except that a connection on which nobody has ever authenticated is not kept alive for
// longer than the timeout. HTTP/2 is not spoken: the buffers of one of its connections are larger than all that.
package door
