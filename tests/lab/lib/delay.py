# Forwards every Ethernet frame between two interfaces, in both directions, MILLISECONDS late:
#     delay.py MILLISECONDS INTERFACE INTERFACE [PORT… | forget]
# Drops TCP data from these ports at the first interface, but still forwards the handshakes. With "forget" it drops
# the data of TCP connections that are older than itself, as a firewall does that has forgotten them. Ends when it is
# killed, or when an interface disappears.
import collections
import select
import socket
import sys
import time

# packet(7) and linux/if_packet.h; Python's socket module does not name them.
ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_RCVBUFFORCE = 33

FRAME = 1 << 17  # bytes; the largest is an unsegmented TCP packet of 64 KiB
BUFFER = 8 << 20  # bytes of the kernel's receive buffer
WAITING = 1 << 16  # maximum number of delayed frames; further ones are lost, as in a router

VNET_HEADER, ETHERNET = 10, 14  # length of the headers before a frame, and before its packet
IPV4, TCP = b"\x08\x00", 6  # type of an Ethernet frame; protocol of an IP packet
SYN = 2  # a flag of TCP


def attach(interface):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    # The header preserves the checksum and segmentation work that veth leaves to the last device.
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    link.bind((interface, ETH_P_ALL))
    return link


def says(frame, ports):
    """Returns true if the frame is TCP data from one of these ports."""
    ethernet = frame[VNET_HEADER:]
    packet = ethernet[ETHERNET:]
    if ethernet[12:14] != IPV4 or packet[9] != TCP:
        return False
    ip_header, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    segment = packet[ip_header:]
    return int.from_bytes(segment[:2], "big") in ports and length > ip_header + (segment[12] >> 4) * 4


def is_forgotten(frame, begun):
    """Is it of a TCP connection that is not among those that were begun? Notes one that begins."""
    ethernet = frame[VNET_HEADER:]
    packet = ethernet[ETHERNET:]
    if ethernet[12:14] != IPV4 or packet[9] != TCP:
        return False
    segment = packet[(packet[0] & 15) * 4 :]
    connection = frozenset([(packet[12:16], segment[:2]), (packet[16:20], segment[2:4])])
    if segment[13] & SYN:
        begun.add(connection)
    return connection not in begun


def forward(delay, one, other, muted, begun):
    across = {one: other, other: one}
    waiting = collections.deque()  # (due time, destination, frame), sorted by due time
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, link, frame = waiting.popleft()
            try:
                link.send(frame)
            except BlockingIOError:
                pass  # the queue is full, so the frame is lost
        patience = waiting[0][0] - now if waiting else None
        for link in select.select(list(across), [], [], patience)[0]:
            frame = link.recv(FRAME)
            if link is one and muted and says(frame, muted):
                continue
            if begun is not None and is_forgotten(frame, begun):
                continue
            if len(waiting) < WAITING:
                waiting.append((time.monotonic() + delay, across[link], frame))


def main(milliseconds, one, other, *words):
    begun = set() if "forget" in words else None
    muted = {int(word) for word in words if word != "forget"}
    forward(int(milliseconds) / 1000, attach(one), attach(other), muted, begun)


main(*sys.argv[1:])
