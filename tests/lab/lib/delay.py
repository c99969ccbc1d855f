# Forwards every Ethernet frame between two interfaces, in both directions, MILLISECONDS late:
#     delay.py MILLISECONDS INTERFACE INTERFACE [PORT… | forget]
# Nothing is forwarded that is said from these TCP ports at the first interface, while connections to them are still
# made. With "forget" nothing is forwarded of TCP connections that were not begun after this was, as behind a firewall
# that has forgotten those before. Ends when it is killed, or when an interface goes.
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
BUFFER = 8 << 20  # bytes the kernel keeps for us
WAITING = 1 << 16  # frames that are on their way; more are lost, as in a router

VNET_HEADER, ETHERNET = 10, 14  # bytes before a frame, and before what it carries
IPV4, TCP = b"\x08\x00", 6  # of an Ethernet frame; of an IP packet
SYN = 2  # a flag of TCP


def attach(interface):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    # With its header a frame keeps what veth leaves to the last device: checksum and segmentation.
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    link.bind((interface, ETH_P_ALL))
    return link


def says(frame, ports):
    """Is it TCP data from one of these ports?"""
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
    waiting = collections.deque()  # (when it is due, where it goes, frame), in this order
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, link, frame = waiting.popleft()
            try:
                link.send(frame)
            except BlockingIOError:
                pass  # its queue is full: lost
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
