//! Finds the user that owns the other end of a loopback connection, by a query to the kernel (sock_diag(7)).
//!
//! TCP has no SO_PEERCRED. So the bridge queries the kernel for the client's socket by its two addresses. A
//! reply counts only if it describes that socket, and if the socket is still connected and held by a process.
//! The kernel reports uid 0 for a socket that no process holds any more. If the connection is gone, it may
//! report a listener of the same port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};

/// Time limit for the kernel's reply. The kernel normally replies before `send` returns.
const ANSWER: Duration = Duration::from_secs(1);
/// Size of the buffer for a reply in bytes. A reply is a header and one socket without extensions.
const LONGEST: usize = 1024;
/// Matches any socket with the given addresses (`INET_DIAG_NOCOOKIE`).
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Returns the uid that owns the socket at `client`, connected to `server`.
///
/// # Errors
/// Returns `NotConnected` or `NotFound` if the connection is gone, or another error if the query fails.
pub fn uid(client: SocketAddr, server: SocketAddr) -> io::Result<u32> {
    let id = socket_id(client, server);
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER))?;
    send(&socket, &question(id.clone()), SendFlags::empty())?;
    let mut buffer = [0; LONGEST];
    let (length, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
    owner(buffer.get(..length).unwrap_or_default(), &id)
}

/// Returns the identity of the socket at `client`, connected to `server`.
pub(crate) fn socket_id(client: SocketAddr, server: SocketAddr) -> SocketId {
    let (client, server) = (plain(client), plain(server));
    SocketId {
        source_port: client.port(),
        destination_port: server.port(),
        source_address: client.ip(),
        destination_address: server.ip(),
        interface_id: 0,
        cookie: NO_COOKIE,
    }
}

/// Converts a mapped address to IPv4. An IPv6 socket shows an IPv4 peer with a mapped address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn question(socket_id: SocketId) -> Vec<u8> {
    let family = if socket_id.source_address.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Returns the owner of the socket `id` from the kernel's reply.
pub(crate) fn owner(answer: &[u8], id: &SocketId) -> io::Result<u32> {
    let gone = |text: &str| io::Error::new(io::ErrorKind::NotConnected, text.to_owned());
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(answer).map_err(io::Error::other)?;
    let socket = match message.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => socket.header,
        NetlinkPayload::Error(error) => return Err(error.to_io()),
        _ => return Err(gone("the kernel gave no answer")),
    };
    let found = SocketId { cookie: id.cookie, interface_id: id.interface_id, ..socket.socket_id };
    if found != *id || socket.state != TCP_ESTABLISHED {
        return Err(gone("the client has closed its end"));
    }
    match socket.inode {
        0 => Err(gone("no process holds the client's end")),
        _ => Ok(socket.uid),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    fn ends(address: SocketAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn the_other_end_is_ours_by_both_families() {
        let ours = nix::unistd::getuid().as_raw();
        for address in [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()] {
            let (client, server) = ends(address);
            let (far, near) = (server.peer_addr().unwrap(), server.local_addr().unwrap());
            assert_eq!(uid(far, near).unwrap(), ours);
            drop(client);
            assert!(uid(far, near).is_err(), "who has gone is nobody, and not root");
        }
    }

    #[test]
    fn a_listener_at_the_clients_port_is_not_the_client() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert!(uid(listener.local_addr().unwrap(), near).is_err());
    }

    fn answer(state: u8, uid: u32, inode: u32, id: &SocketId) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend([AF_INET, state, 0, 0]);
        bytes.extend(id.source_port.to_be_bytes());
        bytes.extend(id.destination_port.to_be_bytes());
        for _ in 0..2 {
            bytes.extend([127, 0, 0, 1]);
            bytes.extend([0; 12]);
        }
        bytes.extend([0; 12]);
        for number in [0, 0, 0, uid, inode] {
            bytes.extend(u32::to_ne_bytes(number));
        }
        let length = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
        bytes[..4].copy_from_slice(&length);
        bytes[4..6].copy_from_slice(&20_u16.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_a_connected_socket_with_an_owner_counts() {
        let id = socket_id((Ipv4Addr::LOCALHOST, 40_000).into(), (Ipv4Addr::LOCALHOST, 3890).into());
        let other = SocketId { destination_port: 0, ..id.clone() };
        assert_eq!(owner(&answer(TCP_ESTABLISHED, 999, 7, &id), &id).unwrap(), 999);
        // The kernel reports orphaned sockets as owned by root.
        assert!(owner(&answer(TCP_ESTABLISHED, 0, 0, &id), &id).is_err());
        assert!(owner(&answer(5, 0, 0, &id), &id).is_err());
        assert!(owner(&answer(10, 0, 7, &other), &id).is_err());
        assert!(owner(&answer(TCP_ESTABLISHED, 0, 7, &other), &id).is_err());
        assert!(owner(&[], &id).is_err());
        assert!(owner(&[0xff; 72], &id).is_err());
    }
}
